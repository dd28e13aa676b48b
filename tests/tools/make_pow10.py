#!/usr/bin/env python3
"""Writes src/model/pow10.h to stdout: 128 bits of each power of ten that a double's text may need, rounded up."""
LOW, HIGH = -292, 324


def significand(k):
    """10^k times the power of two that makes it 128 bits long, rounded up."""
    if k >= 0:
        value = 10**k
        shift = value.bit_length() - 128
        return value << -shift if shift <= 0 else -(-value >> shift)
    divisor = 10**-k
    shift = divisor.bit_length() + 127
    g = -(-(1 << shift) // divisor)
    return g if g.bit_length() == 128 else -(-(1 << (shift - 1)) // divisor)


print(f"/* pow10: the powers of ten from 10^{LOW} to 10^{HIGH}, as 128 bits with the highest set, rounded up.")
print(" * Made by tests/tools/make_pow10.py. */")
print("#ifndef DMSR_MODEL_POW10_H\n#define DMSR_MODEL_POW10_H\n#include <stdint.h>\n")
print(f"#define POW10_MIN ({LOW})\nstruct pow10 {{\n\tuint64_t hi, lo;\n}};")
print(f"static const struct pow10 pow10_table[{HIGH - LOW + 1}] = {{")
for k in range(LOW, HIGH + 1):
    g = significand(k)
    assert g.bit_length() == 128
    print(f"\t{{0x{g >> 64:016x}, 0x{g & (2**64 - 1):016x}}},")
print("};\n#endif")
