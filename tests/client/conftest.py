from tests.api.conftest import api, sealed, template

__all__ = ["api", "sealed", "template"]
