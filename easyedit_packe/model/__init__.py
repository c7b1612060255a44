"""A Hugging Face model: where its key and value vectors lie (`ffn`), what it computes, says and samples, its bits."""
