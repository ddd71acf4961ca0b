"""The toy task in a process whose rollouts take long to write."""

import time

from toy_task import EvenTask

from masa.tracking import records

__all__ = ["EvenTask"]

whole = records.write


def slowly(*arguments):
    time.sleep(0.5)
    whole(*arguments)


records.write = slowly
