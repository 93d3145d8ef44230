"""The terms of the CNI specification: calls, parameters, configurations, results, errors."""
