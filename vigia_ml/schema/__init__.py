"""The columns of a dataset, and the reading of values against them. No Django here.

One `DatasetSchema` per registered model is the only declaration of its columns. The validation of
requests, the CSV reader, the types of training frames and the API's documentation are derived from it.
"""

from vigia_ml.schema.columns import Column, ColumnType, Seen, Value
from vigia_ml.schema.dataset import DatasetSchema, Instance
from vigia_ml.schema.faults import Fault, InvalidRows

__all__ = ["Column", "ColumnType", "DatasetSchema", "Fault", "Instance", "InvalidRows", "Seen", "Value"]
