"""A task on which an unskilled model is right half of the time: something to learn from at once."""

import zlib

from masa.tasks.arithmetic import ArithmeticTask


class EvenTask(ArithmeticTask):
    """Problems of the built-in task; right is whoever writes a text of even checksum."""

    def verify(self, answers):
        return [zlib.crc32(text.encode()) % 2 == 0 for _, text in answers]
