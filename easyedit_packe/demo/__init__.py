"""`packe demo`: a local page on which a model is edited, asked, and put back as it was."""
