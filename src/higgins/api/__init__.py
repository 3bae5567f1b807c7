"""The HTTP face: Zun's v1 API and Higgins' own microversions, on aiohttp.

A request passes, in this order: request id, CORS, errors, authentication, route, microversion, policy, validation, the
use case in ``higgins.control``, and a view of what it returned. ``routes`` is the one table that all of this reads.
"""
