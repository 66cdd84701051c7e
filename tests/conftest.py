"""What every test has: certificates of its own, a network cut off from all but loopback."""

from __future__ import annotations

import hypothesis

# A loaded machine is slow, not wrong.
hypothesis.settings.register_profile("securews", deadline=None)
hypothesis.settings.load_profile("securews")
