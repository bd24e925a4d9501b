"""Property tests are not timed: the machine is shared, and a slow minute is not a defect."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
