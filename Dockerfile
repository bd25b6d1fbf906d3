# The rendezvous (python -m signaling) and nothing else of avcall: no models, no codecs, no OpenCV, no torch.
FROM python:3.11-slim

RUN pip install --no-cache-dir "aiohttp>=3.10,<4" \
 && useradd --system --no-create-home --shell /usr/sbin/nologin avcall

WORKDIR /srv
COPY avcall/__init__.py avcall/errors.py avcall/
COPY signaling/ signaling/

USER avcall
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=3)"]
ENTRYPOINT ["python", "-m", "signaling"]
CMD ["--listen", "0.0.0.0:8080"]
