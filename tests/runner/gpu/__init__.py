"""Layers on GPUs: Mesa's lavapipe, a Vulkan device on the CPU, is as many devices as the tests want."""
