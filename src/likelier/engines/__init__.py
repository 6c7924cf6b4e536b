"""Text generation and rewards, used by the stages that sample and judge."""
