/** The step from the outputs of a network to probabilities, in a browser and in Node.js. */

/**
 * Return the probability of each class for the outputs of one image.
 * One output with two labels is the probability of the second.
 *
 * @param {number[]} outputs The outputs, one for each class.
 * @param {{activation: string, labels: ?string[]}} model The description of the model. The activation is softmax,
 *   sigmoid or none.
 */
export function probabilitiesOf(outputs, { activation, labels }) {
  if (!outputs.every(Number.isFinite)) throw new Error("The output of the network holds NaN or infinity.");
  if (activation !== "softmax") {
    const scores = activation === "none" ? outputs : outputs.map((value) => 1 / (1 + Math.exp(-value)));
    return scores.length === 1 && labels?.length === 2 ? [1 - scores[0], scores[0]] : scores;
  }
  const largest = outputs.reduce((most, value) => Math.max(most, value), -Infinity);
  const powers = outputs.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((all, value) => all + value, 0);
  return powers.map((value) => value / sum);
}
