"""Unit tests never start Ray."""

import pytest


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every way into Ray fail; auto-init goes through ``ray.init`` as well."""
    import ray

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a unit test must not start Ray")

    monkeypatch.setattr(ray, "init", refuse)
