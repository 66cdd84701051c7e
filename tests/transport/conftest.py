import pytest
from transport_helpers import Files

pytest.register_assert_rewrite("securews.testing.socket_handler_contract")


@pytest.fixture(scope="session")
def shared_files(tmp_path_factory):
    """Certificates that no test changes."""
    return Files(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def files(tmp_path):
    """A CA and certificates of this test's own."""
    return Files(tmp_path)
