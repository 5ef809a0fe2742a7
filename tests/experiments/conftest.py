from chat_server import server

__all__ = ["server"]  # a fixture
