"""Loading and saving of every artefact: the only room that touches files.

Artefacts are JSON, latency tables JSON lines, tensors safetensors. Whole files are written atomically: a reader sees
the old one or the new one. Tables grow line by line. One process at a time holds a file. Nothing here unpickles.
"""

from halp_trt.store.artefacts import SCHEMAS, load, save
from halp_trt.store.codec import decode, encode
from halp_trt.store.csv_tables import CSV_FORMS, CsvRows, create_csv, read_csv
from halp_trt.store.files import (
    append_text,
    check_writable,
    create_bytes,
    file_error,
    update_bytes,
    write_bytes,
    write_json,
    write_text,
)
from halp_trt.store.history import append_history, read_history
from halp_trt.store.json_text import parse_json, shown
from halp_trt.store.locks import hold
from halp_trt.store.metrics import append_metrics, read_metrics, write_metrics
from halp_trt.store.places import hidden_beside
from halp_trt.store.reading import (
    LINES_BYTES,
    MODEL_BYTES,
    TENSORS_BYTES,
    check_file,
    open_file,
    read_bytes,
    read_json,
    read_text,
    sha256_bytes,
    sha256_file,
)
from halp_trt.store.schema import upgraded
from halp_trt.store.steps import read_steps
from halp_trt.store.swap import exchange
from halp_trt.store.tables import (
    append_rows,
    append_surfaces,
    check_new_table,
    create_table,
    create_whole_table,
    read_table,
)
from halp_trt.store.temporary import is_temporary
from halp_trt.store.tensors import load_tensor_metadata, load_tensors, save_tensors

__all__ = [
    "CSV_FORMS",
    "LINES_BYTES",
    "MODEL_BYTES",
    "SCHEMAS",
    "TENSORS_BYTES",
    "CsvRows",
    "append_history",
    "append_metrics",
    "append_rows",
    "append_surfaces",
    "append_text",
    "check_file",
    "check_new_table",
    "check_writable",
    "create_bytes",
    "create_csv",
    "create_table",
    "create_whole_table",
    "decode",
    "encode",
    "exchange",
    "file_error",
    "hidden_beside",
    "hold",
    "is_temporary",
    "load",
    "load_tensor_metadata",
    "load_tensors",
    "open_file",
    "parse_json",
    "read_bytes",
    "read_csv",
    "read_history",
    "read_json",
    "read_metrics",
    "read_steps",
    "read_table",
    "read_text",
    "save",
    "save_tensors",
    "sha256_bytes",
    "sha256_file",
    "shown",
    "update_bytes",
    "upgraded",
    "write_bytes",
    "write_json",
    "write_metrics",
    "write_text",
]
