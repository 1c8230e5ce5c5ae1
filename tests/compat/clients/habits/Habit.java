/** What a user of the client does every day, and sees of it. It throws when something is not as it must be. */
@FunctionalInterface
interface Habit {
    void run(Place place) throws Exception;
}
