"""Kinds of cut, one file each, behind one protocol (`base.Kind`)."""
