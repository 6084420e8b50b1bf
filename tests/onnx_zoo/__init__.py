"""The zoo of ONNX files: what exporters write and what packages ship, imported, held against onnxruntime and torch.

`python -m tests.onnx_zoo --files FOLDER --write docs/onnx_models.md` runs it and writes the table.
"""
