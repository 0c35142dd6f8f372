"""One request to an S3 store, signed by hand (AWS Signature Version 4): a client that shares nothing with the forwarder's.

Usage: s3.py METHOD URL KEY SECRET [NAME:VALUE ...]; the body on standard input. Prints the status, then the answer.
"""

import datetime
import hashlib
import hmac
import sys
import urllib.error
import urllib.parse
import urllib.request

method, url, key, secret, *given = sys.argv[1:]
body = sys.stdin.buffer.read()
parts = urllib.parse.urlsplit(url)
now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
digest = hashlib.sha256(body).hexdigest()
headers = {"host": parts.netloc, "x-amz-date": now, "x-amz-content-sha256": digest}
headers |= {name.lower(): value.strip() for name, value in (pair.split(":", 1) for pair in given)}
query = sorted(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
query = "&".join(f"{urllib.parse.quote(n, safe='-_.~')}={urllib.parse.quote(v, safe='-_.~')}" for n, v in query)
signed = ";".join(sorted(headers))
lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
canonical = "\n".join([method, parts.path or "/", query, lines, signed, digest])
scope = f"{now[:8]}/us-east-1/s3/aws4_request"
text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
signer = ("AWS4" + secret).encode()
for part in [*scope.split("/"), text]:
    signer = hmac.new(signer, part.encode(), hashlib.sha256).digest()
headers["authorization"] = (
    f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={signed}, Signature={signer.hex()}"
)
del headers["host"]
request = urllib.request.Request(f"{parts.scheme}://{parts.netloc}{parts.path}?{query}", body or None, headers, method=method)
try:
    with urllib.request.urlopen(request, timeout=30) as answer:
        print(answer.status)
        print(answer.read().decode(errors="replace"))
except urllib.error.HTTPError as error:
    print(error.code)
    print(error.read().decode(errors="replace"))
except OSError as error:
    print(0)
    print(error)
