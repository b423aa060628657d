"""MANY MACHINES: the ``cluster`` extra. The same ``predict``, spread over machines by Ray Data.

Ray is imported only by :mod:`facegender.cluster.scheduler`, and only when ``--cluster`` is given.
"""
