"""The toy task in a process whose rollouts take long to write."""

import time

from toy_task import EvenTask

from masa.tracking import records

__all__ = ["EvenTask"]

whole = records.write


def slowly(table, path):
    time.sleep(0.5)
    whole(table, path)


records.write = slowly
