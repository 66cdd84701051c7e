import gc
import weakref

from securews.common.errors import HandshakeError, without_frames


class Worker:
    """Keeps the error that its own work ended in."""

    def __init__(self):
        self.error = None

    def work(self):
        try:
            try:
                raise ValueError("the reason of the reason")
            except ValueError:
                raise ConnectionResetError("the reason")  # noqa: B904  # a context, not a cause
        except OSError as exc:
            failure = HandshakeError("failed")
            self.error = failure
            raise failure from exc

    def try_to_work(self):
        try:
            self.work()
        except HandshakeError:
            pass


def test_an_error_without_frames_keeps_nothing_alive_but_its_causes():
    gc.disable()
    try:
        worker = Worker()
        worker.try_to_work()
        error, ref = worker.error, weakref.ref(worker)
        assert error is not None
        assert without_frames(error) is error
        del worker
        assert ref() is None
    finally:
        gc.enable()
    assert str(error.__cause__) == "the reason"
    assert error.__cause__.__context__ is None  # perhaps the user's, who wants its frames


def test_reasons_in_a_circle_come_to_an_end():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__context__ = other, one
    assert without_frames(one) is one
