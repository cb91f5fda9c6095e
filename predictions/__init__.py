"""The prediction log and the answers: inference, idempotency, log queries. Stands on `training`."""
