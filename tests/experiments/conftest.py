from chat_server import running_server, server

__all__ = ["running_server", "server"]  # fixtures
