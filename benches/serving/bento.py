"""scikit-learn's model behind BentoML, as in its documentation."""

import os
import pickle
from pathlib import Path

import bentoml
import numpy as np


@bentoml.service(workers=1)
class Model:
    def __init__(self):
        self.model = pickle.loads(Path(os.environ["BENCH_PICKLE"]).read_bytes())

    @bentoml.api
    def predict(self, x: list) -> list:
        return self.model.predict_proba(np.asarray(x))[:, 1].tolist()
