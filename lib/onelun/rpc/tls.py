"""TLS with the broker, from the files that the AMQP URL names."""

from __future__ import annotations

import ssl

from onelun.errors import Rejected
from onelun.rpc.address import Address

# The ends of the names that OpenSSL gives to a broker's alerts (RFC 8446, 6.2), and what each says of our certificate.
_ALERTS = {
    "ALERT_CERTIFICATE_EXPIRED": "says that {certificate} has ended, or not begun: renew it (docs/operations.md)",
    "ALERT_UNKNOWN_CA": "does not know the authority that signed {certificate}",
    "ALERT_CERTIFICATE_REQUIRED": "lets nobody in without a certificate: name one in the AMQP URL (?certfile=…)",
    "ALERT_BAD_CERTIFICATE": "does not take {certificate}",
    "ALERT_CERTIFICATE_UNKNOWN": "does not take {certificate}",
    "ALERT_UNSUPPORTED_CERTIFICATE": "does not take {certificate}: it is for something else",
    "ALERT_HANDSHAKE_FAILURE": "does not agree on TLS with us, or wants a certificate that it knows",
}


def tls_context(address: Address) -> ssl.SSLContext:
    """What a connection to `address` checks and shows. The files are read anew, so that a renewed one counts at once.

    Raises Rejected for files that cannot be read or do not belong together.
    """
    try:
        context = ssl.create_default_context(cafile=address.cafile)
    except OSError as error:
        raise Rejected(f"cannot read the certificate authority {address.cafile}: {error.strerror}") from error
    if address.certfile is None:
        return context
    try:
        # A passphrase that is given keeps openssl from asking the terminal for one.
        context.load_cert_chain(address.certfile, address.keyfile, password="")
    except ssl.SSLError as error:
        key = "that is its own and has no passphrase" + (f" in {address.keyfile}" if address.keyfile else "")
        raise Rejected(f"{address.certfile} has no certificate with a key {key}") from error
    except OSError as error:
        files = " or its key ".join(filter(None, (address.certfile, address.keyfile)))
        raise Rejected(f"cannot read the certificate {files}: {error.strerror}") from error
    return context


def explained_alert(address: Address, error: BaseException) -> str | None:
    """What a broker that ended TLS has against our certificate, in a sentence; None when it is not about TLS.

    pika tells the cause as text inside its own errors.
    """
    if not address.tls:
        return None
    certificate = f"our certificate {address.certfile}" if address.certfile else "our lack of one"
    told = repr(error)
    for alert, sentence in _ALERTS.items():
        if alert in told:
            return f"the broker at {address} {sentence.format(certificate=certificate)}"
    if "certificate verify failed" in told:
        reason = told.partition("certificate verify failed: ")[2].partition(" (_ssl")[0]
        return (
            f"the broker at {address} cannot be trusted, certificate verify failed ({reason}):"
            f" it needs a certificate for {address.host} that {address.cafile or 'an authority of this machine'} has signed"
        )
    return None
