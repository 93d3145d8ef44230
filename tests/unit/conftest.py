"""How many examples a property is tried with.

``quick`` is for people, who run the tests often; ``deep``, for ``make test``, is chosen with
``--hypothesis-profile=deep``. A property that needs more or fewer examples than others multiplies
``settings().max_examples``. No example has a deadline: a busy machine is no defect.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("deep", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("deep"), max_examples=15)
settings.load_profile("quick")
