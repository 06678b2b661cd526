#include "harness/sweep/cell_failure.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <new>

#include "harness/core/error.h"

namespace kvc {
namespace {

std::optional<std::string> message_of(const std::function<void()>& work) {
  try {
    work();
    return std::nullopt;
  } catch (const DeviceLost&) {
    throw;
  } catch (const Error& e) {
    return e.what();
  } catch (const c10::OutOfMemoryError& e) {
    return out_of_device_memory(e.what_without_backtrace());
  } catch (const c10::Error& e) {
    return fmt::format("LibTorch: {}", e.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return "out of memory\n  mend:  free memory, or take a shorter document, fewer queries or a smaller batch";
  }
}

}  // namespace

std::optional<std::string> failure_of(const std::function<void()>& work, const DeviceCare& device) {
  std::optional<std::string> message = message_of(work);
  if (message) device.after_failure(*message);
  return message;
}

}  // namespace kvc
