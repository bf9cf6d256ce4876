"""The public face of laser-search.

Importing it makes `search`, `tasks` and `cluster` the packages of this installation, whatever
files of these names lie in the working folder or on PYTHONPATH.
"""

from __future__ import annotations

from laser_search.own_packages import claim

claim()
