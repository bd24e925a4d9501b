"""The fault campaign: releases from closed to open on the embedded stack while its processes are killed and paused; see docs/faults.md."""
