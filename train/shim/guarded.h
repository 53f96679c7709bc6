// What all functions of the shim share.

#pragma once

#include <cstddef>
#include <cstdio>
#include <exception>

#include <c10/util/Exception.h>

// A function gives true, or false and why: a line in the caller's `message`. No exception crosses the border.
template <typename Run>
bool guarded(char *message, std::size_t capacity, Run run) noexcept {
  const auto tell = [&](const char *what) { std::snprintf(message, capacity, "%s", what); };
  try {
    run();
    return true;
  } catch (const c10::Error &error) {
    tell(error.what_without_backtrace());
  } catch (const std::exception &error) {
    tell(error.what());
  } catch (...) {
    tell("an exception of an unknown kind");
  }
  return false;
}
