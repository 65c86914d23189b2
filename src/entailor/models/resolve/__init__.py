"""From the name of a model to a folder with its files: Hub, local folder, GGUF, PyPI package."""
