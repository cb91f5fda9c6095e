"""The columns of a CSV, and how values are read against them. No Django here.

One `DatasetSchema` per registered model is the only declaration of its columns. What validates a
request, reads a CSV, types a training frame and documents the API is derived from it.
"""

from vigia_ml.schema.columns import Column, ColumnType, Seen, Value
from vigia_ml.schema.dataset import DatasetSchema, Instance
from vigia_ml.schema.faults import Fault, InvalidRows

__all__ = ["Column", "ColumnType", "DatasetSchema", "Fault", "Instance", "InvalidRows", "Seen", "Value"]
