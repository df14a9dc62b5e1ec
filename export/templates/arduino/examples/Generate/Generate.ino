// Learns a phrase, continues it, and prints both on the serial monitor (115200 baud).
#include <Arduino.h>
#include <edgehmn.hpp>

#include "example.h"

void setup() {
  Serial.begin(115200);
  while (!Serial) {
    delay(10);
  }
  static example_result result;
  const char *failure = example_run(&result);
  if (failure != NULL) {
    Serial.print("failed: ");
    Serial.println(failure);
    return;
  }
  Serial.print("millibits a token before learning ");
  Serial.print(result.before);
  Serial.print(", after ");
  Serial.println(result.after);
  for (int i = 0; i < EXAMPLE_GENERATED; i++) {
    Serial.print(result.tokens[i]);
    Serial.print(' ');
  }
  Serial.println();
  Serial.println(result.text);
}

void loop() {}
