"""The columns of a CSV, and how values are read against them. No Django here.

One `DatasetSchema` per registered model is the only declaration of its columns. What validates a
request, reads a CSV, types a training frame and documents the API is derived from it.
"""

from training.schema.columns import Column, ColumnType, Seen, Value
from training.schema.dataset import DatasetSchema, Instance
from training.schema.faults import Fault, InvalidRows

__all__ = ["Column", "ColumnType", "DatasetSchema", "Fault", "Instance", "InvalidRows", "Seen", "Value"]
