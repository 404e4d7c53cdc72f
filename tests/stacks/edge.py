"""A service for the tests of the ingress: TLS of its own at 8443, and at 9000 a line that says what
the PROXY protocol's header told of the client."""

import socket
import socketserver
import ssl
import struct
import threading


class Tls(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(b"tls")


class WhoAmI(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        head = self.request.recv(28, socket.MSG_WAITALL)
        told = "nothing"
        if head[:12] == b"\r\n\r\n\x00\r\nQUIT\n":
            host, port = socket.inet_ntoa(head[16:20]), struct.unpack("!H", head[24:26])[0]
            told = f"{host}:{port}"
        self.request.sendall(told.encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class TlsServer(Server):
    def get_request(self) -> tuple[ssl.SSLSocket, object]:
        accepted, address = super().get_request()
        return CONTEXT.wrap_socket(accepted, server_side=True), address

    def handle_error(self, request: object, client_address: object) -> None:
        pass


CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
CONTEXT.load_cert_chain("/edge.pem")
threading.Thread(target=TlsServer(("", 8443), Tls).serve_forever, daemon=True).start()
Server(("", 9000), WhoAmI).serve_forever()
