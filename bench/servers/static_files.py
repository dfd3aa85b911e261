"""Starlette's StaticFiles, itself the app: no router, no mount, no middleware."""

from starlette.staticfiles import StaticFiles

from bench.servers import arguments, serve

if __name__ == "__main__":
    port, folder = arguments()
    serve(StaticFiles(directory=folder), port)
