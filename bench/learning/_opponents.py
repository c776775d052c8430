"""Other libraries' query strategies, run in their own environment: a question a line in, an answer a line out.

Imports nothing of this project and is started with another interpreter. The model is the asker's:
its probabilities and embeddings of every sample come with the question, and the strategy picks.
"""

# ruff: noqa: ARG001, ARG002 -- the libraries decide what their functions are handed.
import base64
import json
import sys

import numpy as np


class Known:
    """A classifier whose probabilities are known; asked about samples by their places, a column."""

    def __init__(self, proba):
        self.proba = proba

    def predict_proba(self, places):
        """Return what the asker's model says of these samples."""
        return self.proba[np.asarray(places).ravel().astype(int)]


class Ranked(Known):
    """The same, asked about rows of the free samples only, all of them at once."""

    def __init__(self, proba, labelled):
        super().__init__(proba)
        self.X_training = labelled

    def predict_proba(self, rows):
        """Return what the asker's model says of the free samples."""
        return self.proba


def pick_modal(strategy, proba, embedding, labelled, target, free, k, seed):
    """Return places of the pool as modAL chooses them."""
    from modAL.batch import uncertainty_batch_sampling
    from modAL.uncertainty import margin_sampling

    if strategy == "margin":
        chosen = margin_sampling(Known(proba), free[:, None], n_instances=k, random_tie_break=True)
    else:
        chosen = uncertainty_batch_sampling(Ranked(proba[free], embedding[labelled]), embedding[free], n_instances=k)
    chosen = chosen[0] if isinstance(chosen, tuple) else chosen
    return free[np.asarray(chosen).ravel()]


def pick_skactiveml(strategy, proba, embedding, labelled, target, free, k, seed):
    """Return places of the pool as scikit-activeml chooses them."""
    from skactiveml.base import SkactivemlClassifier
    from skactiveml.pool import Badge, CoreSet, Falcun, TypiClust

    class Given(SkactivemlClassifier):
        """``Known``, as this library wants it; with the embedding where it is asked for."""

        def fit(self, X, y, sample_weight=None):
            self.classes_ = np.arange(proba.shape[1])
            return self

        def predict_proba(self, X, return_embeddings=False):
            places = np.asarray(X).ravel().astype(int)
            return (proba[places], embedding[places]) if return_embeddings else proba[places]

    y = np.full(len(proba), np.nan)
    y[labelled] = target
    if strategy in ("coreset", "typiclust"):
        query = {"coreset": CoreSet, "typiclust": TypiClust}[strategy](random_state=seed)
        return query.query(X=embedding, y=y, batch_size=k)
    places = np.arange(len(proba), dtype=float)[:, None]
    clf = Given(classes=np.arange(proba.shape[1])).fit(places, y)
    if strategy == "badge":
        query = Badge(random_state=seed, clf_embedding_flag_name="return_embeddings")
    else:
        query = Falcun(random_state=seed)
    return query.query(X=places, y=y, clf=clf, fit_clf=False, batch_size=k)


def load(name):
    """Return rows and classes of a set that comes with scikit-learn."""
    from sklearn import datasets

    data = getattr(datasets, f"load_{name}")()
    return data.data, data.target


def decoded(value):
    if isinstance(value, dict) and "base64" in value:
        return np.frombuffer(base64.b64decode(value["base64"]), dtype="<f4").reshape(value["shape"])
    return value


def encoded(array):
    array = np.asarray(array, dtype="<f4")
    return {"shape": array.shape, "base64": base64.b64encode(array.tobytes()).decode()}


def main():
    for line in sys.stdin:
        question = {key: decoded(value) for key, value in json.loads(line).items()}
        if "load" in question:
            answer = load(question["load"])
        else:
            library = question.pop("library")
            for name in ("labelled", "target", "free"):
                question[name] = question[name].astype(int)
            question["proba"] = question["proba"].astype(float)
            question["proba"] /= question["proba"].sum(axis=1, keepdims=True)
            np.random.seed(question["seed"])
            pick = {"modal": pick_modal, "skactiveml": pick_skactiveml}[library]
            answer = [pick(**question)]
        print(json.dumps([encoded(one) for one in answer]), flush=True)


if __name__ == "__main__":
    main()
