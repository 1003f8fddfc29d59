"""TensorRT from 8.5 to 11 and TensorRT for RTX: one code path over two libraries."""
