#include "server/engine/sample_text.h"

namespace cupola::engine {

const std::vector<std::string>& SampleTexts() {
  static const auto* const kTexts = new std::vector<std::string>{
      "The harbour town of Saint-Malo lies on the north coast of Brittany. Its "
      "walls were built in the twelfth century, burned with the rest of the "
      "old "
      "city in August 1944, and were put up again stone by stone over the "
      "following twelve years. At low tide the visitor can walk across the wet "
      "sand to the fort on the little island of Petit Bé; at high tide the "
      "same "
      "path stands under nine metres of water, and the unlucky must wait until "
      "evening for the sea to let them go home.",
      "When the committee met again on Tuesday, the chair read out the letter "
      "from the ministry. It said that the budget for the next year would be "
      "cut "
      "by eight per cent, that no new posts could be filled before March, and "
      "that the report on the hospital was still expected by the end of the "
      "month. Nobody spoke for a while. Then Dr. Okafor said, \"If they want "
      "the "
      "report, they will have to give us the people to write it,\" and the "
      "others "
      "laughed, though not for long.",
      "To make bread you need flour, water, salt and yeast. Mix 500 grams of "
      "flour with 350 grams of warm water, add ten grams of salt and a "
      "teaspoon "
      "of yeast, and knead the dough for ten minutes until it is smooth. Leave "
      "it "
      "in a warm place for an hour. It should become twice as large. Shape it, "
      "let it rest for another thirty minutes, and bake it at 230 degrees for "
      "about forty minutes, or until the crust is brown and the loaf sounds "
      "hollow when you knock on it.",
      "In physics, the energy of a photon is proportional to its frequency. "
      "The "
      "constant of proportionality is named after Max Planck, who introduced "
      "it "
      "in 1900 to explain the spectrum of light that a hot body gives off. "
      "Five "
      "years later Albert Einstein used the same constant to explain why light "
      "of a high frequency can knock electrons out of a metal while brighter "
      "light of a low frequency cannot. For this work, and not for the theory "
      "of "
      "relativity, he received the Nobel Prize.",
      "def greatest_common_divisor(a, b):\n    while b != 0:\n        a, b = "
      "b, "
      "a % b\n    return a\n\nprint(greatest_common_divisor(48, 36))  # 12\n\n"
      "The function above divides again and again until nothing is left over. "
      "For 48 and 36 it needs two steps: 48 = 1 * 36 + 12 and 36 = 3 * 12 + 0, "
      "so the answer is 12.",
      "She had not seen her brother for eleven years, and now he stood in the "
      "doorway with a suitcase in one hand and a birdcage in the other. \"I "
      "was "
      "in the neighbourhood,\" he said. The bird looked at her with one yellow "
      "eye. Behind him the rain came down on the street, on the parked cars, "
      "on "
      "the garden that their mother had planted and that neither of them had "
      "ever learned to keep. \"You had better come in,\" she said at last, "
      "\"both "
      "of you.\"",
      "The three largest cities of Japan are Tokyo, Yokohama and Osaka; of "
      "Brazil, São Paulo, Rio de Janeiro and Brasília; of Germany, Berlin, "
      "Hamburg and Munich. The capital of France is Paris, the capital of "
      "Canada "
      "is Ottawa, and the capital of Australia is not Sydney but Canberra. The "
      "Nile flows north through Egypt to the Mediterranean, while the Amazon "
      "flows east across the continent to the Atlantic Ocean.",
      "Dear Ms. Halloran, thank you for your order of 14 March. We are sorry "
      "to "
      "tell you that the blue lamp (item 20-417) is out of stock and will not "
      "be "
      "delivered before the second week of April. You can wait for it, choose "
      "another colour, or have your $89.50 returned to your card. Please let "
      "us "
      "know by email or telephone which of these you would like. With kind "
      "regards, the customer service team."};
  return *kTexts;
}

}  // namespace cupola::engine
