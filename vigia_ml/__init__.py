"""What a model is: schema, pipeline, training, versions, activation. Knows nothing of the apps above it.

ONNX Runtime reports home from the moment its library is loaded: it writes a device id below `~/.cache` and
looks for its server. It reads the switch against that while it is loaded, so the switch stands here, in the
package that every process of the service (and a notebook) imports before it can import ONNX Runtime. Child
processes inherit it.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
