"""Prediction on a Ray cluster: the ``cluster`` extra.

Ray is imported only by :mod:`facegender.cluster.scheduler`, and only if ``--cluster`` is given.
"""
