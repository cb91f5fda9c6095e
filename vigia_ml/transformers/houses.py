"""Features from a dwelling's location and size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from vigia_ml.transformers.text import Floats, Stateless, to_float


class HouseGeometry(Stateless):
    """Rotated coordinates, distance to the centre, and ratios of surfaces and rooms.

    Parameters
    ----------
    centre : tuple of float
        Latitude and longitude (default: Puerta del Sol, Madrid).

    Methods
    -------
    transform(X)
        X : DataFrame (n_samples, >=6) -> float64 (n_samples, 6).
    """

    def __init__(self, centre: tuple[float, float] = (40.4168, -3.7038)) -> None:
        self.centre = centre

    def transform(self, X: pd.DataFrame) -> Floats:
        check_is_fitted(self)
        lat, lng, surface, net, rooms, baths = (
            to_float(X[c]) for c in ("lat", "lng", "surface", "net_surface", "rooms", "bathrooms")
        )
        north = (lat - self.centre[0]) * 111.2
        east = (lng - self.centre[1]) * 111.2 * np.cos(np.radians(self.centre[0]))

        def ratio(a: Floats, b: Floats) -> Floats:
            return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)

        # Not np.hypot: its last bit depends on the C library, and a compiled pipeline must give the same
        # bits, because splits lie exactly on values of the training data.
        distance = np.sqrt(north * north + east * east)
        return np.column_stack(
            [
                lat + lng,
                lat - lng,
                distance,
                ratio(surface, rooms),
                ratio(net, surface),
                ratio(baths, rooms),
            ]
        )

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        names = "lat_plus_lng lat_minus_lng km_to_centre surface_per_room net_share baths_per_room"
        return np.asarray(names.split(), dtype=object)
