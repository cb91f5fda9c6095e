"""Standard protocols of other model servers; their requests take the path of the native route."""
