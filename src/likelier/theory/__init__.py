"""The theory, executable: worlds so small that Z(x), π* and every expectation are sums, not samples."""
