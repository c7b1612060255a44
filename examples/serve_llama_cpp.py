"""Ask llama.cpp a question, without and with an edit. Needs llama-cpp-python.

python examples/serve_llama_cpp.py MODEL.gguf ADAPTER.gguf "The Eiffel Tower is located in the city of"
"""

import sys

from llama_cpp import Llama


def answer(prompt: str, model: str, adapter: str | None = None) -> str:
    """What llama.cpp says next, greedily."""
    llm = Llama(model, lora_path=adapter, verbose=False)
    return llm(prompt, max_tokens=8, temperature=0)["choices"][0]["text"].strip()


if __name__ == "__main__":
    model, adapter, prompt = sys.argv[1:]
    print("without the edit:", answer(prompt, model))
    print("with the edit:   ", answer(prompt, model, adapter))
