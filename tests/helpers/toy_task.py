"""A task on which an untrained model is correct half of the time."""

import zlib

from masa.tasks.arithmetic import ArithmeticTask


class EvenTask(ArithmeticTask):
    """Problems of the built-in task; a text with an even checksum is correct."""

    def verify(self, answers):
        return [zlib.crc32(text.encode()) % 2 == 0 for _, text in answers]
