"""ServeStatic's ASGI app."""

from servestatic import ServeStaticASGI

from bench.servers import arguments, serve

if __name__ == "__main__":
    port, folder = arguments()
    serve(ServeStaticASGI(None, root=folder), port)
