"""CRC-32C as Cloud Storage writes it, and that of joined pieces without reading them again."""

import base64
import binascii
import functools

POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected


def encode(crc: int) -> str:
    """The sum as it stands in resources and x-goog-hash: base64 of four bytes, big end first."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def decode(text: str) -> int | None:
    """The sum behind such a text, None when it is none."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return int.from_bytes(data, "big") if len(data) == 4 else None


def combine(first: int, second: int, second_bytes: int) -> int:
    """The sum of two pieces one after another, from the sum of each and the length of the second."""
    shift, power = 1 << 31, 3  # x to the power of 0; lengths count bytes, of 2**3 bits
    while second_bytes:
        if second_bytes & 1:
            shift = _multiply(_power_of_x(power), shift)
        second_bytes >>= 1
        power += 1
    return _multiply(shift, first) ^ second


@functools.cache
def _power_of_x(k: int) -> int:
    """x to the power of 2**k, modulo the polynomial."""
    return 1 << 30 if k == 0 else _multiply(_power_of_x(k - 1), _power_of_x(k - 1))


def _multiply(a: int, b: int) -> int:
    """The product of two polynomials over GF(2), modulo the polynomial; both reflected."""
    product, bit = 0, 1 << 31
    while a:
        if a & bit:
            product ^= b
            a ^= bit
        bit >>= 1
        b = b >> 1 ^ (POLYNOMIAL if b & 1 else 0)
    return product
