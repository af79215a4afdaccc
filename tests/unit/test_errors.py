"""What the words of messages are made of."""

from queue_core import counted


def test_a_number_of_things_is_said_in_the_singular_for_one_alone():
    assert [counted(number, "queue") for number in range(3)] == ["0 queues", "1 queue", "2 queues"]
    assert counted(1, "message waits", "messages wait") == "1 message waits"
    assert counted(2, "message waits", "messages wait") == "2 messages wait"
