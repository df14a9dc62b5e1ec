"""Simulated memristive crossbar tiles: devices, arrays, converters, writes, energy. Every figure is simulated."""
